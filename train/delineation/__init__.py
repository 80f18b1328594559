"""P waves, QRS complexes and T waves: masks, intervals, training and scores."""
