// k00_scan_sum: out = scan_sum(x)
//   test_kernel_text.py:43: "running_sum": lambda: functions.cumsum(_x(6, 5)),
// x: f32[6, 5]   out: f32[6, 5]
// a row of 5 per invocation, workgroup 8; 240 bytes, 30 flops
@group(0) @binding(0) var<storage, read> t_x: array<f32>;
@group(0) @binding(1) var<storage, read_write> t_out: array<f32>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let row = (group.y * 1u + group.x) * 8u + thread;
    if (row >= 6u) {
        return; // no barriers below
    }
    var total = f32(0);
    for (var k = 0u; k < 5u + group.z; k++) {
        let v_x = t_x[row * 5u + k];
        total = select(total + v_x, v_x, k == 0u);
        t_out[row * 5u + k] = total;
    }
}
