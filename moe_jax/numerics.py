"""The version of the numbers that a training run gives."""

# Raised when a golden-loss test changes: when the same config on the same
# machine no longer gives the same losses. Finished runs of an older version are
# then never mixed with new ones in one comparison.
NUMERICS_VERSION = 3
