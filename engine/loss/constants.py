"""The numbers of the published losses; plain, so that kernels can take them too."""

SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2
SSIM_WEIGHT = 0.85
# Keeps the mean-normalised disparity finite.
EPSILON = 1e-7
# Weight of the pull of the predictive mask towards 1.
MASK_WEIGHT = 0.2
# torch's binary cross entropy bounds its logarithm there.
LOWEST_LOG = -100.0
# Standard deviation of the noise on identity losses.
TIE_BREAK_NOISE = 1e-5
# Pixels of an SSIM window, and the channels that a loss map is the mean over.
WINDOW = 9
CHANNELS = 3
