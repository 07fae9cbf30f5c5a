"""The processor or GPU that a model runs on: names, presence, and all that differs between makes.

Nothing here knows of models or training; nobody else asks torch.cuda, torch.mps or torch.xpu.
"""
