// k00_sort_rows: out = sort_rows(x)
//   test_kernel_text.py:39: "sort": lambda: functions.argsort(asg.input("x", (2, 4), "u32")),
// x: u32[2, 4]   out: i32[2, 4]
// a row of 4 per invocation, workgroup 8; 64 bytes, 16 flops
@group(0) @binding(0) var<storage, read> t_x: array<u32>;
@group(0) @binding(1) var<storage, read_write> t_out: array<i32>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let row = (group.y * 1u + group.x) * 8u + thread;
    if (row >= 2u) {
        return; // no barriers below
    }
    let v_x = t_x[row * 4u];
    var k0 = v_x;
    var p0 = 0i;
    let v_x_1 = t_x[row * 4u + 1u];
    var k1 = v_x_1;
    var p1 = 1i;
    let v_x_2 = t_x[row * 4u + 2u];
    var k2 = v_x_2;
    var p2 = 2i;
    let v_x_3 = t_x[row * 4u + 3u];
    var k3 = v_x_3;
    var p3 = 3i;
    // A sorting network (Batcher's); among equal keys positions decide, so the order is stable.
    var swaps = false;
    var key = 0u;
    var place = 0i;
    swaps = k0 > k1 || (k0 == k1 && p0 > p1);
    key = select(k0, k1, swaps);
    k1 = select(k1, k0, swaps);
    k0 = key;
    place = select(p0, p1, swaps);
    p1 = select(p1, p0, swaps);
    p0 = place;
    swaps = k2 > k3 || (k2 == k3 && p2 > p3);
    key = select(k2, k3, swaps);
    k3 = select(k3, k2, swaps);
    k2 = key;
    place = select(p2, p3, swaps);
    p3 = select(p3, p2, swaps);
    p2 = place;
    swaps = k0 > k2 || (k0 == k2 && p0 > p2);
    key = select(k0, k2, swaps);
    k2 = select(k2, k0, swaps);
    k0 = key;
    place = select(p0, p2, swaps);
    p2 = select(p2, p0, swaps);
    p0 = place;
    swaps = k1 > k3 || (k1 == k3 && p1 > p3);
    key = select(k1, k3, swaps);
    k3 = select(k3, k1, swaps);
    k1 = key;
    place = select(p1, p3, swaps);
    p3 = select(p3, p1, swaps);
    p1 = place;
    swaps = k1 > k2 || (k1 == k2 && p1 > p2);
    key = select(k1, k2, swaps);
    k2 = select(k2, k1, swaps);
    k1 = key;
    place = select(p1, p2, swaps);
    p2 = select(p2, p1, swaps);
    p1 = place;
    t_out[row * 4u] = p0;
    t_out[row * 4u + 1u] = p1;
    t_out[row * 4u + 2u] = p2;
    t_out[row * 4u + 3u] = p3;
}
