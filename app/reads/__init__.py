"""Questions that pages and REST ask: rows ready to show. Never writes."""
