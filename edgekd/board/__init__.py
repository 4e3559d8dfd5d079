"""Boards: how they are reached, and what they tell of themselves."""
