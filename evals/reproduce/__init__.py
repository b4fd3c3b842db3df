"""Tables of the three papers made anew on their own data sets, beside the published figures."""
