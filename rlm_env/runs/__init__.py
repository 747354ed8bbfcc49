"""What evaluations and training runs share: run folder, records, options, models, errors, console."""
