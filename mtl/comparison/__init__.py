"""Arms times seeds become a verdict: does sharing help, which tasks, and by how much?"""
