// k00_add: out = broadcast → mul → add(x, b)
//   test_kernel_text.py:29: "map": lambda: _x(6, 8) * 2.0 + asg.input("b", (8,)),
// x: f32[6, 8]   b: f32[8]   out: f32[6, 8]
// 4 elements per invocation, workgroup 64; 416 bytes, 96 flops
@group(0) @binding(0) var<storage, read> t_x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> t_b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> t_out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let i = (group.y * 1u + group.x) * 64u + thread;
    if (i >= 12u) {
        return; // no barriers below
    }
    let v_b = t_b[i % 2u];
    let v_x = t_x[i];
    let v_mul_1 = v_x * vec4f(2.0f);
    let v_out = v_mul_1 + v_b;
    t_out[i] = v_out;
}
