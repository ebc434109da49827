"""Everything that runs on one machine: embedded servers, child processes, and the folder that remembers them.

Owns: starting, watching and stopping programs. May not live here: any framework, driver or setting; the supervisor
stays small beside the processes it starts, and a test holds that. Coming from `app.cli.up`, read `state`, then
`servers`, then `children`.
"""
