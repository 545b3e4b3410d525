"""What passes take, of this machine and of a study's tasks."""
