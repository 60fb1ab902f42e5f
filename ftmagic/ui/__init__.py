"""What a user sees: live views, questions and cards. Decides nothing."""
