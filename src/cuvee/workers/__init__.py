"""Workers: what maps a function over rows, on this machine or on a cluster."""
