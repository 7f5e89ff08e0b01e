// k00_add: out = permute → broadcast → add(x)
//   test_kernel_text.py:32: "transposed": lambda: _x(6, 8).T + 1.0,
// x: f32[6, 8]   out: f32[8, 6]
// 4 elements per invocation, workgroup 64; 384 bytes, 48 flops
@group(0) @binding(0) var<storage, read> t_x: array<f32>;
@group(0) @binding(1) var<storage, read_write> t_out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let i = (group.y * 1u + group.x) * 64u + thread;
    if (i >= 12u) {
        return; // no barriers below
    }
    let v_x = vec4f(t_x[(i * 2u) % 3u * 16u + (i * 2u) / 3u], t_x[(i * 2u) % 3u * 16u + (i * 2u) / 3u + 8u], t_x[(i * 2u + 1u) % 3u * 16u + (i * 2u + 1u) / 3u], t_x[(i * 2u + 1u) % 3u * 16u + (i * 2u + 1u) / 3u + 8u]);
    let v_out = v_x + vec4f(1.0f);
    t_out[i] = v_out;
}
