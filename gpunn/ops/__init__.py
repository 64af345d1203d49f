"""Operations on tensors, by kind. Their public names are gpunn's: `gpunn.exp`, `gpunn.sum`."""
