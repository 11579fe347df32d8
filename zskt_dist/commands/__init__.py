"""One file for each verb; it parses the command line before it imports anything heavy."""
