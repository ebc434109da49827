"""HTTP: `api/` for machines, `pages/` for people. Parse, authorise, call one function, answer."""
