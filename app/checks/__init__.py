"""What can be known before anything is drawn: health, models, cost, memory."""
