"""What a run left behind, told, compared, drawn again and branched off."""
