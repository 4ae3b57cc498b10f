"""Orders the stages of a compression, and keeps what they made: resume, verification, publishing."""
