"""From a folder of pictures to SURD: collect, caption, clean, review, understand, export (paper, Sec. 3)."""
