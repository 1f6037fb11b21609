"""The page that a person opens first: what a run found, where it fails and what it cost."""
