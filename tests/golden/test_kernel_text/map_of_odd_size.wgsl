// k00_sub: out = broadcast → sub(x)
//   test_kernel_text.py:30: "map_of_odd_size": lambda: _x(3, 5) - 1.0,
// x: f32[3, 5]   out: f32[3, 5]
// 1 element per invocation, workgroup 64; 120 bytes, 15 flops
@group(0) @binding(0) var<storage, read> t_x: array<f32>;
@group(0) @binding(1) var<storage, read_write> t_out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let i = (group.y * 1u + group.x) * 64u + thread;
    if (i >= 15u) {
        return; // no barriers below
    }
    let v_x = t_x[i];
    let v_out = v_x - 1.0f;
    t_out[i] = v_out;
}
