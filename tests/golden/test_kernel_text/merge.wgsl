// k00_merge_rows: out = merge_rows(keys, order)
//   test_kernel_text.py:40: "merge": lambda: merge_rows(
// keys: u32[3, 2, 6]   order: i32[3, 2, 6]   out: i32[3, 12]
// 8 elements per invocation, workgroup 8; 432 bytes, 36 flops
@group(0) @binding(0) var<storage, read> t_keys: array<u32>;
@group(0) @binding(1) var<storage, read> t_order: array<i32>;
@group(0) @binding(2) var<storage, read_write> t_out: array<i32>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let item = (group.y * 1u + group.x) * 8u + thread;
    if (item >= 6u) {
        return; // no barriers below
    }
    let row = item / 2u;
    let before = (item % 2u) * 8u; // elements of the result that come first
    // How many of these are from the first row: so many that the last of them comes before the
    // first that is not taken from the second row.
    var low = max(before, 6u) - 6u;
    var high = min(before, 6u);
    while (low < high) {
        let middle = (low + high) >> 1u;
        let opposite = before - 1u - middle;
        let v_keys = t_keys[row * 12u + 0u * 6u + middle];
        let v_keys_1 = t_keys[row * 12u + 1u * 6u + opposite];
        if (v_keys <= v_keys_1) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    var left = low;
    var right = before - low;
    let left_start = min(left, 5u);
    let right_start = min(right, 5u);
    let v_keys_3 = t_keys[row * 12u + 0u * 6u + left_start];
    let v_keys_4 = t_keys[row * 12u + 1u * 6u + right_start];
    var left_key = v_keys_3;
    var right_key = v_keys_4;
    let end = min(before + 8u, 12u);
    for (var out = before; out < end; out++) {
        let is_left = right >= 6u || (left < 6u && left_key <= right_key);
        let side = select(1u, 0u, is_left);
        let here = select(right, left, is_left);
        let key = select(right_key, left_key, is_left);
        let v_order = t_order[row * 12u + side * 6u + here];
        t_out[row * 12u + out] = v_order;
        left += 1u - side;
        right += side;
        let next = min(here + 1u, 5u);
        let v_keys_2 = t_keys[row * 12u + side * 6u + next];
        left_key = select(left_key, v_keys_2, is_left);
        right_key = select(v_keys_2, right_key, is_left);
    }
}
