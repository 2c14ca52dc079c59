"""Studies: sweeps over optimizers and regimes in three phases, as files, as plans, and what they cost."""
