"""The matrix memory S_t = S_{t-1} diag(alpha_t) + v_t k_t^T: the step loop, and the forms that train it."""
