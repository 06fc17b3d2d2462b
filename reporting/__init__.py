"""What tells how a run goes: metrics, curves, grids, pages."""
