package main

import (
	"context"
	"net/http"
	"time"

	"github.com/inngest/inngestgo"
	"github.com/inngest/inngestgo/step"
)

type Hello struct {
	Name string `json:"name"`
}

func main() {
	client, err := inngestgo.NewClient(inngestgo.ClientOpts{AppID: "my-app"})
	if err != nil {
		panic(err)
	}
	_, err = inngestgo.CreateFunction(
		client,
		inngestgo.FunctionOpts{ID: "hello"},
		inngestgo.EventTrigger("demo/hello", nil),
		func(ctx context.Context, input inngestgo.Input[Hello]) (any, error) {
			greeting, err := step.Run(ctx, "greet", func(context.Context) (string, error) {
				return "Hello, " + input.Event.Data.Name + "!", nil
			})
			if err != nil {
				return nil, err
			}
			step.Sleep(ctx, "wait-a-moment", time.Second)
			return map[string]string{"greeting": greeting}, nil
		},
	)
	if err != nil {
		panic(err)
	}
	http.Handle("/api/inngest", client.Serve())
	if err := http.ListenAndServe(":3000", nil); err != nil {
		panic(err)
	}
}
