"""Independent dose by Monte Carlo programs that are installed beside radplan, or unpacked, and never needed."""
