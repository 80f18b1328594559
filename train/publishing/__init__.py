"""What goes to the Hub: cards, licences, files, uploads. Runs no model and knows no evaluation."""
