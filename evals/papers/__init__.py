"""The comparisons that the three papers make, in the miniature world."""
