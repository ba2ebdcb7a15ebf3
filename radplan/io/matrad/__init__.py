"""matRad files: patients, goals and machines."""
