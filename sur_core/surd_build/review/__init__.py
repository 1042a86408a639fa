"""The page on which people look at every sample (paper, Sec. 3): keep, drop, edit."""
