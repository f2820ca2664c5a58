"""What one scan shows: burden, lesions, confidence, the patient's page."""
