"""Networks: nn.Module only, no training and no files but weights."""
