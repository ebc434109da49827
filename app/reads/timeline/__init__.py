"""The timeline of one run: what happened when, as rows of bars in percent, and where the time went.

    facts   what is known: the run, its steps, calls and items          (made of rows in `reads.run_records`)
    drafts  each step as marks in milliseconds, with its state
    drawing all drafts on one scale, with idle time folded
    build   which rows are drawn, nested, in percent                    (`build` the page, `window` what it left out)
    rows    what templates get

Pure: facts from Postgres and the database's clock go in, display-ready rows come out.
"""
