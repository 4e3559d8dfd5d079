"""What the stages of a run share: its folder, its inputs and how a network is fitted."""
