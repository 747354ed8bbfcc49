"""The lessons of Oolong in its easy vocabulary: questions, teachers, and the reading of lines."""
