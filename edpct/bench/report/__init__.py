"""From what was measured to what is read: one schema, and its tables, sentences, page and comparison."""
