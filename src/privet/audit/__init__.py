"""The audit: what attacks found becomes estimates with intervals, and estimates become a verdict."""
