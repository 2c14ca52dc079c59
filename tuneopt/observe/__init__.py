"""What a run says about itself: logs with trial ids, metrics for trackers, and why it waits. Free of Ray and torch."""
