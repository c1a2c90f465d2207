raise RuntimeError("no such luck\n")
