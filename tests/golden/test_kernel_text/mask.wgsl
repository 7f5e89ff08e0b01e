// k00_select: out = greater_equal → broadcast → select(x)
//   test_kernel_text.py:31: "mask": lambda: functions.where(functions.tri(4, 8), _x(4, 8), -1e30),
// x: f32[4, 8]   out: f32[4, 8]
// 4 elements per invocation, workgroup 64; 256 bytes, 64 flops
@group(0) @binding(0) var<storage, read> t_x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> t_out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let i = (group.y * 1u + group.x) * 64u + thread;
    if (i >= 8u) {
        return; // no barriers below
    }
    let v_x = t_x[i];
    let v_greater_equal_1 = vec4i(i32((i / 2u))) >= vec4i((vec4u(i % 2u * 4u) + vec4u(0u, 1u, 2u, 3u)));
    let v_out = select(vec4f((-1.0e+30f)), v_x, v_greater_equal_1);
    t_out[i] = v_out;
}
