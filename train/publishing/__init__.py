"""Cards, licences, files and uploads for the Hub. Runs no model and knows no evaluation."""
