// The gradient of patches held one per lane, and its adjoint. Included inside an unnamed namespace.
// x, gx and gy are N x N vectors; N is the compile-time NC, or n where NC is 0. Gradients are `factor` times the
// definition's, which saves a multiplication per pixel; the caller divides by it once per patch. `following` is asked for
// between the rows (ahead.h).
#pragma once

template <bool SOBEL>
constexpr double gradient_factor = SOBEL ? 8 : 2;

// Zhu and Milanfar's: central differences, one-sided at the patch border. Returns the structure tensor.
template <class V, int NC, class Following>
Moments<V> central_gradient(const V* x, V* gx, V* gy, int n_, const Following& following) {
    const int n = NC ? NC : n_;
    const V zero(0);
    Moments<V> moments{zero, zero, zero};
    const auto row = [&](int r, const V* above, const V* below, bool border) QKERNEL_LAMBDA_INLINE {
        const V* here = x + r * n;
        // A sum for each row: 2 N roundings in a chain instead of N^2, and chains that overlap.
        V a = zero, b = zero, c = zero;
        const auto pixel = [&](int k, V dx) QKERNEL_LAMBDA_INLINE {
            V dy = below[k] - above[k];
            if (border) dy = dy + dy;
            gx[r * n + k] = dx;
            gy[r * n + k] = dy;
            a = fma(dx, dx, a);
            b = fma(dx, dy, b);
            c = fma(dy, dy, c);
        };
        const V first = here[1] - here[0], last = here[n - 1] - here[n - 2];
        pixel(0, first + first);
        for (int k = 1; k < n - 1; ++k) pixel(k, here[k + 1] - here[k - 1]);
        pixel(n - 1, last + last);
        moments.a = moments.a + a;
        moments.b = moments.b + b;
        moments.c = moments.c + c;
        following.ask_for_prediction(r);
    };
    row(0, x, x + n, true);
    for (int r = 1; r < n - 1; ++r) row(r, x + (r - 1) * n, x + (r + 1) * n, false);
    row(n - 1, x + (n - 2) * n, x + (n - 1) * n, true);
    return moments;
}

// dQ/dx of dQ/d(gx, gy). The caller has doubled dQ/dgx in the border columns and dQ/dgy in the border rows.
template <class V, int NC>
void central_adjoint(const V* hx, const V* hy, V* out, int n_) {
    const int n = NC ? NC : n_;
    const V zero(0);
    const auto row = [&](int r, auto vertical) QKERNEL_LAMBDA_INLINE {
        const V* h = hx + r * n;
        V* o = out + r * n;
        o[0] = vertical(0) - (h[0] + h[1]);
        for (int k = 1; k < n - 1; ++k) o[k] = vertical(k) + (h[k - 1] - h[k + 1]);
        o[n - 1] = vertical(n - 1) + (h[n - 2] + h[n - 1]);
    };
    row(0, [&](int k) QKERNEL_LAMBDA_INLINE { return zero - (hy[k] + hy[n + k]); });
    for (int r = 1; r < n - 1; ++r)
        row(r, [&](int k) QKERNEL_LAMBDA_INLINE { return hy[(r - 1) * n + k] - hy[(r + 1) * n + k]; });
    row(n - 1, [&](int k) QKERNEL_LAMBDA_INLINE { return hy[(n - 2) * n + k] + hy[(n - 1) * n + k]; });
}

// 1 2 1 along a line of n vectors with the given stride, mirrored without repeating the edge; in place.
template <class V>
QKERNEL_INLINE void smooth(V* line, int n, int stride) {
    V before = line[stride], here = line[0];
    for (int k = 0; k < n; ++k) {
        const V after = k + 1 < n ? line[(k + 1) * stride] : before;
        const V sum = before + (here + here) + after;
        before = here;
        here = after;
        line[k * stride] = sum;
    }
}

// The transpose of `smooth`, in place: the mirrored ends weigh double.
template <class V>
QKERNEL_INLINE void smooth_adjoint(V* line, int n, int stride) {
    V before(0), here = line[0];
    for (int k = 0; k < n; ++k) {
        const V after = k + 1 < n ? line[(k + 1) * stride] : V(0);
        V sum = before + (here + here) + after;
        if (k == 1) sum = sum + before;
        if (k == n - 2) sum = sum + after;
        before = here;
        here = after;
        line[k * stride] = sum;
    }
}

// The released code's: 3x3 Sobel / 8 with mirrored border. The difference comes first: it is exact for neighbours
// of similar brightness, so a weak gradient on a bright patch keeps its digits.
template <class V, int NC, class Following>
Moments<V> sobel_gradient(const V* x, V* gx, V* gy, int n_, const Following& following) {
    const int n = NC ? NC : n_;
    const V zero(0);
    for (int r = 0; r < n; ++r) {
        for (int k = 0; k < n; ++k) {
            gx[r * n + k] = k == 0 || k == n - 1 ? zero : x[r * n + k + 1] - x[r * n + k - 1];
            gy[r * n + k] = r == 0 || r == n - 1 ? zero : x[(r + 1) * n + k] - x[(r - 1) * n + k];
        }
        following.ask_for_prediction(r);
    }
    for (int k = 1; k < n - 1; ++k) smooth(gx + k, n, n);
    for (int r = 1; r < n - 1; ++r) smooth(gy + r * n, n, 1);
    Moments<V> moments{zero, zero, zero};
    for (int r = 0; r < n; ++r) {
        V a = zero, b = zero, c = zero;
        for (int k = 0; k < n; ++k) {
            const V dx = gx[r * n + k], dy = gy[r * n + k];
            a = fma(dx, dx, a);
            b = fma(dx, dy, b);
            c = fma(dy, dy, c);
        }
        moments.a = moments.a + a;
        moments.b = moments.b + b;
        moments.c = moments.c + c;
    }
    return moments;
}

// dQ/dx of dQ/d(gx, gy). hx and hy are overwritten.
template <class V, int NC>
void sobel_adjoint(V* hx, V* hy, V* out, int n_) {
    const int n = NC ? NC : n_;
    const V zero(0);
    for (int k = 1; k < n - 1; ++k) smooth_adjoint(hx + k, n, n);
    for (int r = 1; r < n - 1; ++r) smooth_adjoint(hy + r * n, n, 1);
    // The gradient across the border is 0 whatever the pixels are: nothing comes back from there.
    for (int r = 0; r < n; ++r)
        for (int k = 0; k < n; ++k) {
            const V left = k >= 2 ? hx[r * n + k - 1] : zero, right = k < n - 2 ? hx[r * n + k + 1] : zero;
            const V up = r >= 2 ? hy[(r - 1) * n + k] : zero, down = r < n - 2 ? hy[(r + 1) * n + k] : zero;
            out[r * n + k] = (left - right) + (up - down);
        }
}
