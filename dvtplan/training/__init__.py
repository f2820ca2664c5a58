"""Loss, augmentation, data loading, trainer."""
