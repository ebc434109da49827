"""Pages for people, one module an area, with templates of the same name."""
