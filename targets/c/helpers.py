"""The functions in C that steps call; a file holds those that its step needs."""

HELPERS: dict[str, str] = {}
for bits in (32, 64):
    HELPERS |= {
        f"right{bits}": f"""/* x / 2^shift, rounded down. */
static inline int{bits}_t right{bits}(int{bits}_t x, int shift)
{{
    return x < 0 ? ~(~x >> shift) : x >> shift;
}}
""",
        f"rescaled{bits}": f"""/* x / 2^shift rounded to the nearest, ties upwards; x 2^-shift where shift <= 0. */
static inline int{bits}_t rescaled{bits}(int{bits}_t x, int shift)
{{
    const int{bits}_t one = 1;
    return shift > 0 ? right{bits}(x + (one << (shift - 1)), shift) : x * (one << -shift);
}}
""",
        f"within{bits}": f"""/* The nearest number in low .. high. */
static inline int{bits}_t within{bits}(int{bits}_t x, int{bits}_t low, int{bits}_t high)
{{
    return x < low ? low : x > high ? high : x;
}}
""",
    }
HELPERS |= {
    "fade": """/* decay x / 2^bits, truncated towards zero, in 32 bits; for decay <= 2^bits <= 2^15. */
static inline int32_t fade(int32_t decay, int32_t x, int bits)
{
    const uint32_t size = x < 0 ? 0u - (uint32_t)x : (uint32_t)x, low = ((uint32_t)1 << bits) - 1;
    const uint32_t kept = (uint32_t)decay * (size >> bits) + (((uint32_t)decay * (size & low)) >> bits);
    return x < 0 ? -(int32_t)kept : (int32_t)kept;
}
""",
    "wrapped": """/* x modulo 2^bits, in -2^(bits - 1) + 1 .. 2^(bits - 1). */
static inline int64_t wrapped(int64_t x, int bits)
{
    const uint64_t half = (uint64_t)1 << (bits - 1);
    return (int64_t)(((uint64_t)x + half - 1) & (2 * half - 1)) - (int64_t)(half - 1);
}
""",
}
for bits in (16, 32):
    HELPERS[
        f"listed{bits}"
    ] = f"""/* Lists the places of spikes in x, in order, and returns how many there are. */
static int32_t listed{bits}(const uint8_t *x, int32_t width, uint{bits}_t *list)
{{
    int32_t count = 0, i = 0;
    for (; i + 8 <= width; i += 8) {{
        uint64_t eight;
        memcpy(&eight, x + i, 8);
        if (eight == 0) {{
            continue;
        }}
        for (int32_t k = i; k < i + 8; k++) {{
            list[count] = (uint{bits}_t)k;
            count += x[k] != 0;
        }}
    }}
    for (; i < width; i++) {{
        list[count] = (uint{bits}_t)i;
        count += x[i] != 0;
    }}
    return count;
}}
"""
