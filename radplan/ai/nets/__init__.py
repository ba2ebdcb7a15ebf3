"""Networks: torch modules alone, which know no file, no patient and no training."""
